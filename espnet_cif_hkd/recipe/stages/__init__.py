"""The stages of ``asr.sh``."""
