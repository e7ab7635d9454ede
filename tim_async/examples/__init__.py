"""Small complete programs to copy from: web apps in FastAPI, aiohttp.web, Flask and Django, and workers.

Each runs unchanged; its further packages are named at its top, and its settings are read from the environment.
"""
