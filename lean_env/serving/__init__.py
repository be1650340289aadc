"""The Lean pool as a server; needs the extra ``serve`` (Starlette, uvicorn)."""
