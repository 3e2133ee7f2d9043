"""Who teaches: frozen models that turn an utterance into targets."""
