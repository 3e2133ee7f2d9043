"""Export of a trained model to ONNX graphs, which run without torch and ESPnet."""
