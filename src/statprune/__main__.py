"""`python -m statprune`."""

from statprune.cli.main import run

if __name__ == "__main__":
    run()
