"""Print what was measured: `python -m benchmarks`."""

import argparse

from benchmarks import handovers, primitives


def main() -> None:
    """Measure handovers, then their primitives in the same run, and print both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="handovers to send at full speed")
    parser.add_argument("--timed", type=int, default=300, help="handovers to time one by one")
    options = parser.parse_args()
    found = handovers.measure(options.count, options.timed)
    batch = found.count / found.envelopes
    print(f"{found.count} handovers of an eight-section form, node to node, a core for each node")
    print("durable at both ends, receipts verified")
    print(f"  per second            {found.per_s:8.0f}")
    print(f"  handovers an envelope {batch:8.1f}")
    print(f"  CPU for each          {found.cpu_ms:8.2f} ms")
    print(f"    sending node        {found.sender_cpu_ms:8.2f} ms")
    print(f"    receiving node      {found.receiver_cpu_ms:8.2f} ms")
    print("one at a time, from the form to the verified and stored receipt")
    print(f"  p50                   {found.p50_ms:8.1f} ms")
    print(f"  p99                   {found.p99_ms:8.1f} ms")
    print()
    print("the same handover in primitives alone, CPU           each      times      total")
    sums = primitives.measure(batch)
    for primitive in sums:
        print(f"  {primitive.name:44} {primitive.each_us:8.1f} us {primitive.times:7.2f} {primitive.total_us:8.0f} us")
    floor_ms = sum(primitive.total_us for primitive in sums) / 1000
    print(f"  {'sum':44} {floor_ms:30.2f} ms")
    print(f"CPU for each handover is {found.cpu_ms / floor_ms:.1f} times the sum of its primitives")


if __name__ == "__main__":
    main()
