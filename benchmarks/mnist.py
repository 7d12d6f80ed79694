"""Question: how often is the recipe `mnist` right about a handwritten digit, and what does its training cost?

Command (FOLDER has the four IDX files of MNIST, plain or .gz; flags as of `pellucid train` stand last):

    python benchmarks/mnist.py --data FOLDER [--seeds 1] [--out runs/benchmark-mnist] [--json FILE] [--flags --training.steps 500 …]

Trains through the command line, as a user would, one run per seed in OUT-SEED, and evaluates each on the 10,000 test images. A twentieth
of the training images is held out (`dev` in the table) and tells which weights are kept; by it alone the recipe's settings were chosen.
The accuracy has a 95 % interval (bootstrap over the images); `seconds` is training alone, `everything` all a user waits for.
"""

from sst2 import arguments, report, run, there


def main() -> None:
    args = arguments(__doc__, 1, "runs/benchmark-mnist")
    train, test = (
        [there(args.data, f"{part}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")]
        for part in ("train", "t10k")
    )
    report(run("mnist", ["--data", *train, "--data.test", *test], args.seeds, args.out, args.flags), args)


if __name__ == "__main__":
    main()
