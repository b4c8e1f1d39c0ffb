"""`python -m cosmoflow` is `cosmoflow`."""
from .cli import main

if __name__ == "__main__": main()
