"""`python -m qkv`: the command, where its folder is not on the path."""

from qkv.cli.main import main

if __name__ == "__main__":
    main()
