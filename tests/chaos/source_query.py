"""One run of a query in plain PySpark, ``local[2]``, to be killed: see ``test_source_kills``.

Its sink is a folder with one file per batch. A batch that runs again must hold what it held: a
file that would change is kept, and the difference is written beside it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.streaming import class_archive
from tests.pipelines.kinesis.deadly import deadly_source, dying

SMALL = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"


def main() -> None:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    file, group = str(folder / "die"), os.getpgid(0)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "512m")
        .config("spark.driver.extraJavaOptions", f"{SMALL} {class_archive.options()}")
        .config("spark.driver.extraClassPath", class_archive.class_path())
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    spark.dataSource.register(deadly_source(file, group))
    rows = folder / "rows"
    rows.mkdir(exist_ok=True)
    die = dying(file, group)

    def sink(frame: Any, batch: int) -> None:
        found = frame.select("shard", "sequence", "partition_key", "data").collect()
        texts = sorted([r.shard, r.sequence.zfill(60), r.partition_key, bytes(r.data).decode()]
                       for r in found)  # fmt: skip
        path = rows / f"{batch:06d}.json"
        if path.exists() and json.loads(path.read_text()) != texts:
            path = rows / f"{batch:06d}.differs"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(texts))
        draft.rename(path)
        die("sink")

    query = (
        spark.readStream.format("kinesis").options(**options).load()
        .writeStream.foreachBatch(sink)
        .option("checkpointLocation", str(folder / "checkpoint"))
        .trigger(processingTime="100 milliseconds")
        .start()
    )  # fmt: skip
    query.awaitTermination()


if __name__ == "__main__":
    main()
