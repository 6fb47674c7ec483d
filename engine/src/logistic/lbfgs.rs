//! The least value of a smooth convex function: limited-memory BFGS (Nocedal and Wright 2006,
//! algorithms 7.4 and 7.5), with a preconditioner where they begin with a multiple of the identity.

use std::collections::VecDeque;

use super::Options;
use crate::directions::{add, dot};

/// Steps that the shape of the function is told from.
const MEMORY: usize = 10;
/// A step must gain this part of what the slope promises (Wolfe's first condition).
const GAIN: f64 = 1e-4;
/// A step must leave at most this part of the slope (Wolfe's second condition).
const SLOPE_LEFT: f64 = 0.9;
/// How much longer, at least and at most, a step is tried after one that was too short. The first step of
/// all may be too short by far: nothing is known of the curvature.
const LEAST_GROWTH: f64 = 2.0;
const MOST_GROWTH: f64 = 1000.0;
/// How far from both ends of what is left the next length is, at least, as a part of it.
const MARGIN: f64 = 0.1;
/// Lengths that are tried for a step.
const MOST_LENGTHS: usize = 40;
/// Difference of two values, relative to them, that may be rounding.
const ROUNDING: f64 = 1e-13;

/// Where a search ended.
pub(super) struct Minimum {
    pub(super) at: Vec<f64>,
    pub(super) steps: usize,
    pub(super) converged: bool,
}

/// A step and how it changed the gradient.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their dot product.
    curvature: f64,
    /// What the preconditioner is to be multiplied with, told from them.
    scale: f64,
}

/// Follows `evaluate` down from `at`; it gives the value, and writes the gradient. `precondition` multiplies with
/// about the inverse of the second derivatives: a fixed, symmetric and positive matrix.
pub(super) fn minimize(
    mut at: Vec<f64>,
    options: &Options,
    mut evaluate: impl FnMut(&[f64], &mut [f64]) -> f64,
    precondition: impl Fn(&mut [f64]),
) -> Minimum {
    let mut gradient = vec![0.0; at.len()];
    let mut value = evaluate(&at, &mut gradient);
    let mut memory: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    let mut steps = 0;
    let converged = loop {
        let largest = gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
        if largest <= options.tolerance {
            break true;
        }
        if steps == options.max_steps {
            break false;
        }
        let direction = direction(&gradient, &memory, &precondition);
        let from = From {
            at: &at,
            value,
            slope: dot(&gradient, &direction),
            direction: &direction,
        };
        let Some(next) = from.walk(&mut evaluate) else {
            if memory.is_empty() {
                // Not even straight down: values are as low as rounding lets them be told apart.
                break false;
            }
            memory.clear();
            continue;
        };
        let step: Vec<f64> = next.at.iter().zip(&at).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next
            .gradient
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            let mut preconditioned = change.clone();
            precondition(&mut preconditioned);
            memory.push_back(Pair {
                scale: curvature / dot(&change, &preconditioned),
                step,
                change,
                curvature,
            });
        }
        Next {
            at,
            gradient,
            value,
        } = next;
        steps += 1;
    };
    Minimum {
        at,
        steps,
        converged,
    }
}

/// Where to go: down the gradient, as far in each direction as the last steps say.
fn direction(
    gradient: &[f64],
    memory: &VecDeque<Pair>,
    precondition: &impl Fn(&mut [f64]),
) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut parts = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let part = dot(&pair.step, &direction) / pair.curvature;
        add(-part, &pair.change, &mut direction);
        parts.push(part);
    }
    precondition(&mut direction);
    if let Some(last) = memory.back() {
        for d in &mut direction {
            *d *= last.scale;
        }
    }
    for (pair, part) in memory.iter().zip(parts.into_iter().rev()) {
        let back = dot(&pair.change, &direction) / pair.curvature;
        add(part - back, &pair.step, &mut direction);
    }
    direction
}

/// Where a step begins.
struct From<'a> {
    at: &'a [f64],
    value: f64,
    slope: f64,
    direction: &'a [f64],
}

/// Where it ends.
struct Next {
    at: Vec<f64>,
    gradient: Vec<f64>,
    value: f64,
}

impl From<'_> {
    /// A step whose length meets Wolfe's conditions. Where it does not, the next one is where a parabola
    /// has its minimum; near the minimum of the function, where values no longer differ by more than
    /// rounding, slopes decide alone (Hager and Zhang 2005, equation 4.1).
    fn walk(&self, evaluate: &mut impl FnMut(&[f64], &mut [f64]) -> f64) -> Option<Next> {
        if self.slope >= 0.0 {
            return None;
        }
        let mut low = Tried {
            length: 0.0,
            slope: self.slope,
        };
        let (mut high, mut length) = (f64::INFINITY, 1.0);
        let mut gradient = vec![0.0; self.at.len()];
        for _ in 0..MOST_LENGTHS {
            let mut at = self.at.to_vec();
            add(length, self.direction, &mut at);
            let value = evaluate(&at, &mut gradient);
            let slope = dot(&gradient, self.direction);
            let gains = value <= self.value + GAIN * length * self.slope;
            let is_level = value <= self.value + ROUNDING * self.value.abs();
            let gains = gains || (is_level && slope <= (2.0 * GAIN - 1.0) * self.slope);
            if gains && slope >= SLOPE_LEFT * self.slope {
                return Some(Next {
                    at,
                    gradient,
                    value,
                });
            }
            let there = Tried { length, slope };
            let level = low.level_with(&there);
            if gains {
                low = there;
            } else {
                high = length;
            }
            length = low.next(level, high);
        }
        None
    }
}

/// A length that was tried, or where it began.
struct Tried {
    length: f64,
    slope: f64,
}

impl Tried {
    /// The length where the slope is nothing, if it changes evenly from here to there.
    fn level_with(&self, there: &Self) -> f64 {
        let by = (there.length - self.length) / (there.slope - self.slope);
        self.length - self.slope * by
    }

    /// The next length to try above this one and below `high`: `level`, unless that is outside or hardly
    /// nearer to the middle.
    fn next(&self, level: f64, high: f64) -> f64 {
        if high.is_finite() {
            let margin = MARGIN * (high - self.length);
            let inside = self.length + margin..=high - margin;
            return if inside.contains(&level) {
                level
            } else {
                f64::midpoint(self.length, high)
            };
        }
        // Not a number where slopes do not change.
        let least = LEAST_GROWTH * self.length;
        if level >= least {
            level.min(MOST_GROWTH * self.length)
        } else {
            least
        }
    }
}
