"""Layers of adapters that are ours: what PEFT has no layer for, and what it computes in more passes than it takes."""
