"""The pandas way of bench/data.ts: the same cleaning and the same sequences as the product, written plainly.

python bench/data-pandas.py FILE CORE    prints one JSON line (see BuildReport in data-child.ts)
"""

import json
import resource
import sys
import time
from hashlib import md5, sha256

import pandas as pd


def main(file: str, core: int) -> None:
    start = time.perf_counter()
    if file.endswith(".parquet"):
        df = pd.read_parquet(file, columns=["user", "item", "time"])
    else:
        df = pd.read_csv(file, usecols=["user", "item", "time"], dtype={"user": str, "item": str})
    df = df.drop_duplicates()
    df = df.groupby(["user", "item"], sort=False, as_index=False)["time"].min()
    while True:
        before = len(df)
        for key in ("item", "user"):
            df = df[df.groupby(key)[key].transform("size") >= core]
        if len(df) == before:
            break
    # The product's tie-break, computed only where there is a tie.
    df["tie"] = ""
    tied = df.duplicated(["user", "time"], keep=False)
    df.loc[tied, "tie"] = [
        md5(f"{u}\x1f{i}".encode()).hexdigest() for u, i in zip(df.user[tied], df.item[tied], strict=True)
    ]
    df = df.sort_values(["user", "time", "tie"])
    sequences = df.groupby("user", sort=False)["item"].agg(list)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)

    digest = sha256()
    for user, items in sequences.sort_index().items():
        digest.update(f"{user} {' '.join(items)}\n".encode())
    report = {
        "seconds": seconds,
        "cpuSeconds": usage.ru_utime + usage.ru_stime,
        "peakMb": usage.ru_maxrss / 1024,
        "users": len(sequences),
        "interactions": len(df),
        "sequences": digest.hexdigest(),
    }
    sys.stdout.write(f"{json.dumps(report)}\n")


main(sys.argv[1], int(sys.argv[2]))
