"""The stages of `asr.sh`, one subject a file."""
