"""One file for each family of PEFT methods but LoRA, which is in lora.py above. Add new ones here."""
