"""python -m unittest, in this folder."""

import unittest

import goals


def row(engine, per_s, **others):
    case = {"model": "clip", "threads": 1, "kind": "image", "batch": 1}
    return {**case, "engine": engine, "per_s": per_s, **others}


class Goals(unittest.TestCase):
    def test_the_better_peer_counts(self):
        rows = [row("diptych int8", 30), row("onnxruntime int8", 10), row("openvino int8", 20)]
        [line] = goals.lines(rows)
        self.assertEqual((line["peer"], line["ratio"], line["goal"]), ("openvino int8", 1.5, 1.35))

    def test_what_was_not_measured_has_no_line(self):
        self.assertEqual(goals.lines([row("diptych f32", 1), row("torch f32", 1)]), [])
        self.assertEqual(goals.lines([row("onnxruntime f32", 1)]), [])

    def test_int8_may_be_as_far_off_as_that_of_onnx_runtime(self):
        peer = row("onnxruntime int8", 1, least_cosine=0.999)
        near = row("diptych int8", 1, least_cosine=0.9991, largest_difference=1e-3)
        far = row("diptych int8", 1, least_cosine=0.9989, largest_difference=1e-3)
        self.assertEqual(goals.inaccurate([peer, near]), [])
        self.assertEqual(len(goals.inaccurate([peer, far])), 1)

    def test_f32_is_held_to_both_bars(self):
        off = row("diptych f32", 1, least_cosine=0.99, largest_difference=1e-3)
        self.assertEqual(len(goals.inaccurate([off])), 2)


if __name__ == "__main__":
    unittest.main()
