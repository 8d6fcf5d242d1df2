"""The nouns: what flysync and the services that it drives know. Frozen dataclasses, without any I/O."""
