"""Fine-tuning methods: how adapters are put on a base; a new PEFT method stands here."""
