//! A head put to items, texts and pictures. Each of them fails alone.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use embedding::{Encoded, Modality};
use engine::{Collection, Head, HeadKind, KeptHead, LabelSpreads, Prediction};
use serde_json::{Value, json};

use super::{
    describe::predictions,
    examples::{Source, modality},
    wire::{InputIn, PredictIn},
};
use crate::{
    content::{Patience, encode_window},
    query::in_range,
    reply::ApiError,
    state::{Caller, block},
    tower::Class,
    wire::Object,
};

/// Labels of a prediction that does not say how many.
pub(crate) const DEFAULT_K: usize = 5;

/// What is predicted, or why not.
type One = Result<(Option<String>, Modality, Encoded), (Option<String>, ApiError)>;

/// Which version predicted, and what, in the order of the request: first its ids, then its inputs.
pub(crate) async fn predict(
    caller: Caller<'_>,
    collection: Arc<Collection>,
    name: String,
    wire: PredictIn,
) -> Result<(u32, Vec<Value>), ApiError> {
    let state = caller.state;
    let k = in_range("k", wire.k.unwrap_or(DEFAULT_K), state.limits.labels)?.get();
    let ids = wire.ids.into_iter().map(|id| InputIn {
        id: Some(id),
        ..InputIn::default()
    });
    let sent = wire.inputs.into_iter().map(|Object(input)| input);
    let inputs: Vec<InputIn> = ids.chain(sent).collect();
    if inputs.is_empty() || inputs.len() > state.limits.items {
        let (got, most) = (inputs.len(), state.limits.items);
        let message = format!("{got} ids and inputs, expected 1 to {most}");
        return Err(ApiError::invalid("inputs", message));
    }
    let (theirs, version) = (Arc::clone(&collection), wire.version);
    let (version, kept) = block("reading a head", move || {
        let kept = theirs.head(&name, version);
        kept.map_err(|e| ApiError::engine("reading a head", e))
    })
    .await?;
    Ok((version, tell(caller, (collection, kept), inputs, k).await?))
}

/// What a head says of each input.
pub(crate) async fn tell(
    caller: Caller<'_>,
    (collection, kept): (Arc<Collection>, Arc<KeptHead>),
    inputs: Vec<InputIn>,
    k: usize,
) -> Result<Vec<Value>, ApiError> {
    let state = caller.state;
    state.pools.query();
    let limits = state.limits.clone();
    let read = inputs.into_iter().map(|input| {
        let id = input.id.clone();
        Source::read(input, &limits).map_err(|error| (id, error))
    });
    let read: Vec<_> = read.collect();
    let needs_model = |one: &Result<Source, _>| matches!(one, Ok(Source::Sent(_)));
    if read.iter().any(needs_model) {
        state.collection_of_model(collection.name())?;
    }
    let ready = ready(caller, &collection, read).await?;
    block("predicting", move || {
        Teller::new(Some(&collection), &kept).all(ready, k)
    })
    .await
}

/// The embeddings of everything, or why there are none.
async fn ready(
    caller: Caller<'_>,
    collection: &Arc<Collection>,
    read: Vec<Result<Source, (Option<String>, ApiError)>>,
) -> Result<Vec<One>, ApiError> {
    let mut all: Vec<Option<One>> = Vec::with_capacity(read.len());
    let (mut stored, mut sent) = (Vec::new(), Vec::new());
    for (i, one) in read.into_iter().enumerate() {
        all.push(None);
        match one {
            Err(error) => all[i] = Some(Err(error)),
            Ok(Source::Stored(id)) => stored.push((i, id)),
            Ok(Source::Sent(content)) => sent.push((i, content)),
        }
    }
    let theirs = Arc::clone(collection);
    let found = block("reading items", move || {
        let read = stored.into_iter().map(|(i, id)| {
            let item = theirs.get(&id);
            let item = item.map_err(|e| ApiError::engine("reading an item", e));
            let item = item.and_then(|item| {
                item.ok_or_else(|| ApiError::NoItem {
                    collection: theirs.name().to_owned(),
                    id: id.to_string(),
                })
            });
            let id = Some(id.to_string());
            let one = match item {
                Ok(item) => {
                    let encoded = Encoded {
                        shared: item.shared,
                        specific: item.specific,
                    };
                    Ok((id, item.modality, encoded))
                }
                Err(error) => Err((id, error)),
            };
            (i, one)
        });
        Ok(read.collect::<Vec<(usize, One)>>())
    })
    .await?;
    for (i, one) in found {
        all[i] = Some(one);
    }
    let mut sent = sent.into_iter().peekable();
    let mut patience = Patience::Refuse;
    while sent.peek().is_some() {
        let window: Vec<_> = sent.by_ref().take(caller.state.limits.window()).collect();
        let (places, contents): (Vec<_>, Vec<_>) = window
            .into_iter()
            .map(|(i, content)| ((i, modality(&content)), content))
            .unzip();
        let encoded = encode_window(caller, contents, Class::Ask, patience).await?;
        for ((i, modality), ready) in places.into_iter().zip(encoded) {
            all[i] = Some(match ready {
                Ok(ready) => Ok((None, modality, ready.encoded)),
                Err(error) => Err((None, error)),
            });
        }
        patience = Patience::Wait;
    }
    Ok(all.into_iter().flatten().collect())
}

/// A head that is put to many things.
pub(crate) struct Teller<'a> {
    /// Whose items say what is usual.
    collection: Option<&'a Arc<Collection>>,
    kept: &'a KeptHead,
    /// What the head is to each modality.
    heads: HashMap<Modality, Cow<'a, Head>>,
    spreads: HashMap<Modality, Option<LabelSpreads>>,
}

/// What a head says of one thing.
pub(crate) struct Said {
    /// All labels, the most probable first.
    pub(crate) predictions: Vec<Prediction>,
    /// Whether none of them fits; `None` where nothing tells.
    pub(crate) none_of_these: Option<bool>,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(collection: Option<&'a Arc<Collection>>, kept: &'a KeptHead) -> Self {
        Self {
            collection,
            kept,
            heads: HashMap::new(),
            spreads: HashMap::new(),
        }
    }

    fn all(mut self, ready: Vec<One>, k: usize) -> Result<Vec<Value>, ApiError> {
        let mut out = Vec::with_capacity(ready.len());
        for one in ready {
            let (id, told) = match one {
                Ok((id, modality, encoded)) => (id, self.one(modality, &encoded)?),
                Err((id, error)) => (id, Err(error)),
            };
            let mut told = match told {
                Ok(said) => json!({
                    "labels": predictions(&said.predictions, k),
                    "none_of_these": said.none_of_these,
                }),
                Err(error) => json!({ "error": error.to_json() }),
            };
            if let Some(id) = id {
                told["id"] = json!(id);
            }
            out.push(told);
        }
        Ok(out)
    }

    /// The inner error is of this thing alone.
    pub(crate) fn one(
        &mut self,
        modality: Modality,
        encoded: &Encoded,
    ) -> Result<Result<Said, ApiError>, ApiError> {
        let inputs = &self.kept.head.inputs;
        let row = inputs.row(modality, &encoded.shared, encoded.specific.as_ref());
        let Some(row) = row else {
            let message = format!("this head reads {inputs}, which a {modality} does not have");
            return Ok(Err(ApiError::invalid("id", message)));
        };
        let predictions = self.head(modality)?.predict_row(&row);
        let none_of_these = self.is_none_of_these(modality, &row, &predictions)?;
        Ok(Ok(Said {
            predictions,
            none_of_these,
        }))
    }

    fn head(&mut self, of: Modality) -> Result<&Head, ApiError> {
        match self.heads.entry(of) {
            Entry::Occupied(head) => Ok(head.into_mut()),
            Entry::Vacant(free) => {
                let head = match self.collection {
                    Some(collection) => collection.head_for(self.kept, of),
                    None => Ok(Cow::Borrowed(&self.kept.head)),
                };
                Ok(free.insert(head.map_err(|e| ApiError::engine("predicting", e))?))
            }
        }
    }

    /// `None` where nothing tells.
    fn is_none_of_these(
        &mut self,
        modality: Modality,
        row: &[f32],
        all: &[Prediction],
    ) -> Result<Option<bool>, ApiError> {
        let KeptHead {
            head,
            likeness,
            about,
        } = self.kept;
        if about.multi_label {
            return Ok(Some(all.iter().all(|p| p.probability < 0.5)));
        }
        if about.kind == HeadKind::FewShot {
            return Ok(likeness
                .as_ref()
                .map(|likeness| likeness.is_none_of_these(row)));
        }
        let Some(collection) = self.collection else {
            return Ok(None);
        };
        if let Entry::Vacant(free) = self.spreads.entry(modality) {
            let spreads = collection.label_spreads(head, modality);
            let spreads = spreads.map_err(|e| ApiError::engine("predicting", e))?;
            free.insert(spreads);
        }
        let Some(Some(spreads)) = self.spreads.get(&modality) else {
            return Ok(None);
        };
        let by_label: HashMap<&str, f32> =
            all.iter().map(|p| (p.label.as_str(), p.score.0)).collect();
        let cosine = |label: &String| by_label.get(label.as_str()).copied().unwrap_or(-1.0);
        let cosines: Vec<f32> = head.labels.iter().map(cosine).collect();
        Ok(Some(spreads.is_none_of_these(&cosines)))
    }
}
