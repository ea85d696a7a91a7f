"""Adapters on loaded models: those of peft, and ours in the same form.

An adapter is a folder with ``adapter_config.json`` and ``adapter_model.safetensors``. Ours say so
in their configuration by a ``peft_type`` that begins with ``TILTH_``; importing the module that
defines one makes it known to peft, whose own functions then train, save, load and merge it.

- :mod:`tilth.models.adapters.bitfit`: bias terms alone;
- :mod:`tilth.models.adapters.adaptformer`: a small branch beside each feed-forward block;
- :mod:`tilth.models.adapters.nf4`: base weights rounded to four bits, for QLoRA;
- :mod:`tilth.models.adapters.prompts`: learnt prompts in front of every text that a model reads;
- :mod:`tilth.models.adapters.attach`: puts the adapter of a folder on a model, and merges it.
"""
