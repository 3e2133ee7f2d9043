"""Files, processes, devices: Kaldi tables, audio, locks, downloads, archives, logs."""
