"""Where models and texts come from: ``hub``, ``pypi``, ``local`` and, for models, ``random``. One module each."""
