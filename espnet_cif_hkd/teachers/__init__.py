"""Teachers: frozen models that turn an utterance into targets."""
