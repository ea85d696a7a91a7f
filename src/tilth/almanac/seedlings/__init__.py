"""The seedlings: ``small``, ``large`` and ``teacher``, shipped as safetensors with their cards."""
