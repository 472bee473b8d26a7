"""What is a run? Its folder, status, saved config, metrics and checkpoints."""
