"""The process that runs a run: the Python API, stages, pipeline, run folder, steering. No Ray."""
