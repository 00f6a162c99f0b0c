"""What single methods of PEFT's need beside what is common to all adapters."""
