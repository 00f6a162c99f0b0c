"""Settings as frozen data: one class per kind of run, read from YAML and overrides; the presets."""
