"""Small complete programs to copy: web apps in FastAPI, aiohttp.web, Flask and Django, and workers.

Each runs as it is; its docstring names the packages to install and the environment variables that it reads.
"""
