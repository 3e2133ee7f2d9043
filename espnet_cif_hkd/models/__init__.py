"""What ESPnet trains."""
