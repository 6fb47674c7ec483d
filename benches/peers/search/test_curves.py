"""What curves.py promises; `python -m unittest` in this folder."""

import unittest

from curves import at_recall, frontier, ratios, recall, two_threads, worth_repeating


def points(*pairs):
    return [{"recall": r, "qps": q} for r, q in pairs]


def curve(*pairs):
    return {"image": points(*pairs), "text": points(*pairs)}


class Curves(unittest.TestCase):
    def test_a_row_found_twice_counts_once(self):
        self.assertEqual(recall([[1, 2], [3, 4]], [[2, 2], [4, 3]]), 0.75)

    def test_beaten_points_are_not_on_the_frontier(self):
        given = points((0.9, 100), (0.95, 120), (0.99, 50), (0.98, 50))
        self.assertEqual(frontier(given), points((0.95, 120), (0.99, 50)))

    def test_speed_at_a_recall_is_between_its_points(self):
        given = points((0.99, 100), (0.91, 400))
        self.assertAlmostEqual(at_recall(given, 0.95)["qps"], 200)
        self.assertAlmostEqual(at_recall(given, 0.99)["qps"], 100)
        self.assertIsNone(at_recall(given, 0.991))

    def test_a_curve_above_the_target_counts_with_its_first_point_and_says_so(self):
        found = at_recall(points((0.97, 300), (0.99, 100)), 0.95)
        self.assertEqual(found, {"qps": 300, "starts_above": True})

    def test_hopeless_settings_are_dropped_and_close_ones_kept(self):
        given = points((0.90, 100), (0.95, 90), (0.90, 60), (0.9999, 50), (1.0, 10))
        self.assertEqual(worth_repeating(given), [0, 1, 3])

    def test_the_best_is_the_fastest_one_with_single_queries(self):
        from curves import reached

        at = reached(
            {
                "diptych": curve((0.9, 4000), (0.999, 3000)),
                "diptych_two_threads": curve((0.9, 8000), (0.999, 6000)),
                "hnswlib": curve((0.95, 1000), (0.98, 500)),
                "faiss_hnsw": curve((0.96, 1500), (0.999, 500)),
                "faiss_ivf": curve((0.95, 900), (0.999, 800)),
                "faiss_ivf_batched": curve((0.95, 9000), (0.999, 8000)),
            }
        )
        found = ratios(at)
        ours = at["diptych"]["img"]
        self.assertAlmostEqual(found["best"]["img"][".95"], ours[".95"]["qps"] / 1500)
        self.assertEqual(found["best"], found["faiss"])
        self.assertLess(found["best_batched"]["txt"][".99"], 1)
        self.assertIsNone(found["hnswlib"]["img"][".99"])
        self.assertAlmostEqual(two_threads(at)["txt"][".99"], 2)


if __name__ == "__main__":
    unittest.main()
