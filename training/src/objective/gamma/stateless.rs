//! The loss for streams, where no item comes twice.

use candle_core::{Result, Tensor};

use super::{Anchors, Rows};

/// The decomposable loss with `ln Z` trained in place of remembered: the mean over rows of
/// `exp(-a) * Z + a - 1 - s+`, from `log Z = min over a of exp(-a) * Z + a - 1`. It is never less than the
/// loss over all data, equal at `a = log Z`, and its gradient is unbiased in the logits and in `a` at once.
///
/// `offsets` are `a` by row `[n]`: one trainable scalar per item, or what a small head says of it. Start
/// them near `ln(M) + s`, or their first steps are as large as `Z`. `items` of the anchors are not looked
/// at beyond their number.
///
/// # Errors
/// When shapes do not fit each other.
pub fn stateless(anchors: &Anchors, offsets: &Tensor) -> Result<Tensor> {
    let rows = Rows::new(anchors)?;
    let bound = ((&rows.log_z - offsets)?.exp()? + offsets)?;
    let losses = ((bound - 1.0)? - rows.pair)?;
    (losses * rows.counts)?.mean_all()
}
