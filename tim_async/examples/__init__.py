"""Small complete programs to copy from: a web app in FastAPI, one in aiohttp.web, and a worker for bulk work.

Each runs unchanged; its further packages are named at its top, and its settings are read from the environment.
"""
