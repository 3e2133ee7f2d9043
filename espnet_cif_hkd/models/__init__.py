"""ESPnet models with distillation."""
