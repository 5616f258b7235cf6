# Work of a usual script: dictionaries, strings, lists, classes, generators, big integers.
import re


class Node:
    __slots__ = ("key", "left", "right")

    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

    def insert(self, key):
        node = self
        while True:
            side = "left" if key < node.key else "right"
            child = getattr(node, side)
            if child is None:
                setattr(node, side, Node(key))
                return
            node = child

    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.key
        if self.right:
            yield from self.right.walk()


def numbers(count, seed=7):
    for _ in range(count):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        yield seed >> 33


def main():
    root = Node(1 << 30)
    for n in numbers(5000):
        root.insert(n)
    print(sum(i * k for i, k in enumerate(root.walk())) % 1000003)
    words = " ".join(f"w{n % 977}={n % 13:x}" for n in numbers(20000))
    counts = {}
    for name, value in re.findall(r"(w\d+)=(\w)", words):
        counts[name] = counts.get(name, 0) + int(value, 16)
    print(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3])
    print(pow(3, 5000, 10 ** 300 + 7) % 1000003, len(str(2 ** 12000)))


main()
