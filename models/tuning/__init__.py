"""Fine-tuning methods: how adapters are put on a base. Add new PEFT methods in peft_methods/."""
