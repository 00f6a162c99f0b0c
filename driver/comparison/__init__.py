"""Methods of fine-tuning compared: the same stage on the same data, once with each method."""
