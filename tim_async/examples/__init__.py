"""Small complete programs to copy from: a web app in FastAPI, one in aiohttp.web, and a worker for bulk work.

Each runs as it is; what it needs beside tim_async stands at its top, and its settings are in the environment.
"""
