//! What a student learns from the outputs of a teacher, which get no gradient.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::{log_softmax, softmax};
use encoders::nn::unit_rows;

/// Kullback-Leibler divergence of the student's distribution from the teacher's, both softened by
/// `temperature` and scaled back by its square (Hinton et al. 2015, section 2). Logits are
/// `[n, classes]`; the result is a scalar in nats, mean over rows.
///
/// # Errors
/// When shapes do not fit each other.
pub fn logit_divergence(teacher: &Tensor, student: &Tensor, temperature: f64) -> Result<Tensor> {
    let soft_teacher = (teacher.detach() / temperature)?;
    let log_student = log_softmax(&(student / temperature)?, D::Minus1)?;
    let log_teacher = log_softmax(&soft_teacher, D::Minus1)?;
    let ratio = (log_teacher - log_student)?;
    let divergence = (softmax(&soft_teacher, D::Minus1)? * ratio)?.sum(1)?;
    divergence.mean_all()? * (temperature * temperature)
}

/// One minus the mean cosine of embeddings `[n, dim]` of any length: 0 when the student can take
/// the teacher's place in front of an index that the teacher filled.
///
/// # Errors
/// When shapes do not fit each other.
pub fn embedding_distance(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    let cosines = (unit_rows(&teacher.detach())? * unit_rows(student)?)?.sum(1)?;
    cosines.mean_all()?.affine(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::objective::gradients::{check, rows, scalar};

    #[test]
    fn equal_outputs_cost_nothing_and_a_known_pair_costs_what_is_computed_by_hand() -> Result<()> {
        let logits = rows(3, 4, 0.2);
        assert!(scalar(&logit_divergence(&logits, &logits, 2.0)?).abs() < 1e-12);
        // Probabilities 1/4 and 3/4 against halves, at temperature 2 and so times 4.
        let teacher = Tensor::new(&[[0.0, 2.0 * 3.0_f64.ln()]], &Device::Cpu)?;
        let student = Tensor::new(&[[1.0, 1.0]], &Device::Cpu)?;
        let by_hand = 4.0 * (0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln());
        let value = scalar(&logit_divergence(&teacher, &student, 2.0)?);
        assert!(
            (value - by_hand).abs() < 1e-12,
            "{value}, by hand {by_hand}"
        );
        Ok(())
    }

    #[test]
    fn embeddings_of_one_direction_are_at_distance_0_and_orthogonal_ones_at_1() -> Result<()> {
        let x = Tensor::new(&[[1.0, 2.0], [0.0, 3.0]], &Device::Cpu)?;
        let y = Tensor::new(&[[2.0, 4.0], [5.0, 0.0]], &Device::Cpu)?;
        assert!(scalar(&embedding_distance(&x, &(&x * 3.0)?)?).abs() < 1e-9);
        assert!((scalar(&embedding_distance(&x, &y)?) - 0.5).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn gradients_equal_finite_differences_and_teachers_get_none() -> Result<()> {
        let teacher = candle_core::Var::from_tensor(&rows(3, 4, 0.9))?;
        check(&rows(3, 4, 0.2), |s| logit_divergence(&teacher, s, 2.0));
        check(&rows(3, 4, 0.2), |s| embedding_distance(&teacher, s));
        let student = candle_core::Var::from_tensor(&rows(3, 4, 0.2))?;
        let loss =
            (logit_divergence(&teacher, &student, 2.0)? + embedding_distance(&teacher, &student)?)?;
        assert!(loss.backward()?.get(&teacher).is_none());
        Ok(())
    }
}
