"""A Kinesis stream in plain PySpark: nothing of raytape but the data source is used.

Needed: PySpark 4.2, pyarrow, boto3, orjson, and the package ``pipelines`` on the path of driver and
executors; ``docs/KINESIS_SOURCE.md`` says how. It reads what the stream holds, writes it as JSON
and ends; without ``availableNow`` it would go on.

    python examples/plain_pyspark.py market-data /tmp/rows
    python examples/plain_pyspark.py market-data /tmp/rows --endpoint http://127.0.0.1:4567
"""

from __future__ import annotations

import argparse

from pyspark.sql import SparkSession

from pipelines.kinesis.source import KinesisDataSource


def main() -> None:
    """Copy a stream into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream")
    parser.add_argument("folder")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--endpoint", default="", help="an embedded Kinesis instead of AWS")
    given = parser.parse_args()

    spark = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    )
    spark.dataSource.register(KinesisDataSource)
    rows = (
        spark.readStream.format("kinesis")
        .option("streamName", given.stream)
        .option("region", given.region)
        .option("endpointUrl", given.endpoint)
        .option("startingPosition", "TRIM_HORIZON")
        .load()
    )
    query = (
        rows.selectExpr("shard", "sequence", "partition_key", "CAST(data AS string) AS text")
        .writeStream.format("json")
        .option("path", f"{given.folder}/rows")
        .option("checkpointLocation", f"{given.folder}/checkpoint")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main()
