//! A teacher's maps on the tokens of a student that cuts pictures or texts differently.

use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor, bail};

/// Keeps the rows of padding at 0.
const TINY: f64 = 1e-12;

/// How much each student token has in common with each teacher token.
#[derive(Debug, Clone)]
pub struct Overlap {
    /// `[samples or 1, student tokens, teacher tokens]`, not negative.
    shares: Tensor,
}

/// What a token of a text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextToken {
    /// The bytes of the text that the piece covers.
    Piece(Range<usize>),
    /// A mark such as the start of the text; the same number is the same mark on both sides.
    Mark(u32),
    /// Nothing: to be masked.
    Padding,
}

impl Overlap {
    /// Square grids of patches over the same picture, by area. `leading` tokens before the patches
    /// (such as one class token) stand for each other in order.
    ///
    /// # Errors
    /// When a grid has no patch.
    pub fn grids(student_side: usize, teacher_side: usize, leading: usize) -> Result<Self> {
        if student_side == 0 || teacher_side == 0 {
            bail!("grids of {student_side} and {teacher_side} patches a side: at least 1 each");
        }
        // In units of which both kinds of patch have a whole number.
        let edge = |patch: usize, other: usize| patch * other..(patch + 1) * other;
        let along = |s: usize, t: usize| common(&edge(s, teacher_side), &edge(t, student_side));
        let (rows, columns) = (student_side.pow(2) + leading, teacher_side.pow(2) + leading);
        let mut shares = vec![0.0_f32; rows * columns];
        for (i, row) in shares.chunks_exact_mut(columns).enumerate() {
            for (j, share) in row.iter_mut().enumerate() {
                *share = match (i.checked_sub(leading), j.checked_sub(leading)) {
                    (Some(s), Some(t)) => {
                        let down = along(s / student_side, t / teacher_side);
                        (down * along(s % student_side, t % teacher_side)) as f32
                    }
                    (None, None) if i == j => 1.0,
                    _ => 0.0,
                };
            }
        }
        let shares = Tensor::from_vec(shares, (1, rows, columns), &Device::Cpu)?;
        Ok(Self { shares })
    }

    /// The tokens of each text as `(student, teacher)`, by bytes that pieces have in common.
    ///
    /// # Errors
    /// When the texts of one side are not padded to one length, or a token has nothing in common
    /// with the other side: what one side cut off must be padding on the other.
    pub fn texts(texts: &[(Vec<TextToken>, Vec<TextToken>)]) -> Result<Self> {
        let Some((student, teacher)) = texts.first() else {
            bail!("there is no text");
        };
        let (rows, columns) = (student.len(), teacher.len());
        let mut shares = Vec::with_capacity(texts.len() * rows * columns);
        for (number, (student, teacher)) in texts.iter().enumerate() {
            if (student.len(), teacher.len()) != (rows, columns) {
                bail!(
                    "text {number} has {} and {} tokens, expected {rows} and {columns} as the first",
                    student.len(),
                    teacher.len()
                );
            }
            for (side, own, others) in
                [("student", student, teacher), ("teacher", teacher, student)]
            {
                let alone = |token: &&TextToken| {
                    **token != TextToken::Padding && others.iter().all(|o| shared(token, o) == 0)
                };
                if let Some(token) = own.iter().find(alone) {
                    bail!(
                        "text {number}: the {side}'s {token:?} has nothing in common with any token \
                         of the other side; make it padding if that side was cut"
                    );
                }
            }
            let pairs = student
                .iter()
                .flat_map(|s| teacher.iter().map(move |t| shared(s, t)));
            shares.extend(pairs.map(|bytes| bytes as f32));
        }
        let shares = Tensor::from_vec(shares, (texts.len(), rows, columns), &Device::Cpu)?;
        Ok(Self { shares })
    }

    /// `R_q`, `[samples or 1, student, teacher]`: a student query is the mean of what it covers.
    fn averaging(&self) -> Result<Tensor> {
        rows_to_one(&self.shares)
    }

    /// `C_k`, `[samples or 1, teacher, student]`: a teacher key gives its attention to the student
    /// keys that cover it, so that nothing is lost.
    fn summing(&self) -> Result<Tensor> {
        rows_to_one(&self.shares.transpose(1, 2)?)
    }
}

/// `R_q A C_k`: teacher maps `[b, heads, q, k]` on the student's tokens. Rows sum to 1 again, save
/// those of padding, which are 0.
///
/// # Errors
/// When the maps are not of the teacher tokens of the overlaps.
pub fn pool(maps: &Tensor, queries: &Overlap, keys: &Overlap) -> Result<Tensor> {
    let on = |shares: Tensor| {
        let shares = shares.to_device(maps.device())?.to_dtype(maps.dtype())?;
        shares.unsqueeze(1)
    };
    let by_query = on(queries.averaging()?)?.broadcast_matmul(maps)?;
    by_query.broadcast_matmul(&on(keys.summing()?)?)
}

fn rows_to_one(shares: &Tensor) -> Result<Tensor> {
    let shares = shares.to_dtype(DType::F64)?;
    shares.broadcast_div(&(shares.sum_keepdim(D::Minus1)? + TINY)?)
}

fn shared(a: &TextToken, b: &TextToken) -> usize {
    match (a, b) {
        (TextToken::Piece(a), TextToken::Piece(b)) => common(a, b),
        (TextToken::Mark(a), TextToken::Mark(b)) => usize::from(a == b),
        _ => 0,
    }
}

/// Length of what two ranges share.
fn common(a: &Range<usize>, b: &Range<usize>) -> usize {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}
