"""`python -m benchmarks [--rounds 7] [--seconds 5]`: prints every table."""

import argparse

from benchmarks import overhead


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds a round and peer")
    options = parser.parse_args()
    overhead.main(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
