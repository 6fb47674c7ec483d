//! Making a failure small: first fewer steps, then smaller ones.

use proptest::strategy::ValueTree;

/// Leaves out what the failure does not need, and has proptest make smaller what is left. `fails`
/// says at which step a list fails.
pub(super) fn shrink<T: ValueTree>(
    mut steps: Vec<T>,
    fails: impl Fn(&[T::Value]) -> Option<usize>,
) -> Vec<T> {
    let values = |steps: &[T]| steps.iter().map(ValueTree::current).collect::<Vec<_>>();
    let Some(last) = fails(&values(&steps)) else {
        return steps;
    };
    steps.truncate(last + 1);
    let mut size = steps.len().div_ceil(2);
    loop {
        let mut start = 0;
        let mut fewer = false;
        while start < steps.len() {
            let end = steps.len().min(start + size);
            let mut rest = values(&steps);
            rest.drain(start..end);
            match fails(&rest) {
                Some(last) => {
                    steps.drain(start..end);
                    steps.truncate(last + 1);
                    fewer = true;
                }
                None => start = end,
            }
        }
        match size {
            0 | 1 if !fewer => break,
            _ => size = size.div_ceil(2).min(steps.len().max(1)),
        }
    }
    for i in 0..steps.len() {
        while steps[i].simplify() {
            // Back to the last one that failed; where there is none, it failed as it was.
            while fails(&values(&steps)).is_none() && steps[i].complicate() {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;

    #[test]
    fn of_many_steps_the_two_that_fail_together_are_left_and_they_are_small() {
        let mut runner = TestRunner::deterministic();
        let steps: Vec<_> = (0..700)
            .map(|_| (0..1000_u32).new_tree(&mut runner).expect("a number"))
            .collect();
        // A number above 300, and after it one above 500.
        let fails = |steps: &[u32]| {
            let first = steps.iter().position(|n| *n > 300)?;
            let second = steps[first + 1..].iter().position(|n| *n > 500)?;
            Some(first + 1 + second)
        };
        let small = shrink(steps, fails);
        let small: Vec<u32> = small.iter().map(ValueTree::current).collect();
        assert_eq!(small, [301, 501]);
    }
}
