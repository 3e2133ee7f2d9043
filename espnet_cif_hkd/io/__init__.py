"""Files and devices: Kaldi tables, audio, locks, downloads, archives, logs."""
