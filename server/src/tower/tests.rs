use std::sync::mpsc;

use embedding::{EncodeError, HashEncoder, Modality, Spaces};

use super::*;

/// Refuses "bad", panics on "panic", and waits at "held" until it is told to go on.
struct Picky {
    hash: HashEncoder,
    go_on: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Picky {
    fn new() -> Self {
        Self {
            hash: HashEncoder::new(Modality::Text, 8),
            go_on: Mutex::default(),
        }
    }
}

impl Encoder<String> for Picky {
    fn spaces(&self) -> &Spaces {
        Encoder::<String>::spaces(&self.hash)
    }

    fn modality(&self) -> Modality {
        Modality::Text
    }

    fn cost(&self, input: &String) -> usize {
        assert_ne!(input, "panic", "a broken tokenizer");
        self.hash.cost(input)
    }

    fn encode(&self, batch: &[String]) -> Result<Vec<Encoded>, EncodeError> {
        let has = |what: &str| batch.iter().position(|input| input == what);
        assert_eq!(has("panic"), None, "a broken network");
        if has("held").is_some()
            && let Some(go_on) = &*self.go_on.lock()
        {
            go_on.recv().expect("the test goes on");
        }
        match has("bad") {
            Some(position) => Err(EncodeError::BadInput {
                position,
                reason: "bad".into(),
            }),
            None => self.hash.encode(batch),
        }
    }
}

const LIMITS: TowerLimits = TowerLimits {
    capacity: 16,
    pass_cost: 10,
    deadlines: [Duration::from_mins(1); 2],
};

fn lane(limits: TowerLimits) -> Lane<String> {
    Lane {
        class: Class::Keep,
        queue: Arc::default(),
        encoder: Arc::new(Picky::new()),
        pools: Arc::new(Pools::start().expect("starts")),
        metrics: TowerMetrics::unregistered(),
        limits,
    }
}

/// Puts inputs of one client into the queue; they wait as long as the answers are kept.
fn push(
    lane: &Lane<String>,
    client: Client,
    inputs: &[&str],
) -> Vec<oneshot::Receiver<Result<Done, Failed>>> {
    let rooms = Rooms::new(lane.limits);
    let push = |input: &&str| {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            input: (*input).to_owned(),
            answer,
            room: rooms.take(client, lane.class, 1).expect("there is room"),
            since: Instant::now(),
            trace: Trace::current(),
        };
        assert!(lane.queue.push(job));
        answered
    };
    inputs.iter().map(push).collect()
}

/// What the next pass takes.
fn pass(lane: &Lane<String>, pace: &Pace) -> Vec<String> {
    let first = lane.queue.next_now(lane.class).expect("something waits");
    let (jobs, _) = lane.gather(first, pace);
    jobs.into_iter().map(|(job, _)| job.input).collect()
}

#[test]
fn one_bad_input_fails_alone_and_the_others_keep_their_order() {
    let picky = Picky::new();
    let inputs = ["a", "bad", "b", "panic", "c", "d", "bad"].map(str::to_owned);
    let all = encode_each(&picky, &inputs);
    assert_eq!(all.len(), inputs.len());
    for (input, result) in inputs.iter().zip(&all) {
        match input.as_str() {
            "bad" => assert_eq!(result, &Err(Failed::BadInput("bad".into()))),
            "panic" => assert_eq!(result, &Err(Failed::Tower)),
            _ => {
                let alone = picky.hash.encode(&[input]).expect("encodes").remove(0);
                assert_eq!(result, &Ok(alone), "{input}");
            }
        }
    }
}

#[test]
fn a_pass_ends_where_its_budget_is_spent_and_begins_with_one_input() {
    let lane = lane(LIMITS);
    let mut pace = Pace::new(LIMITS.pass_cost);
    let waiting = push(
        &lane,
        Client::at(1),
        &["1234", "1234", "1234", "1234", "panic", "12"],
    );
    assert_eq!(pass(&lane, &pace), ["1234"], "nothing is known yet");
    pace.learn(4, Duration::from_millis(1));
    assert_eq!(pass(&lane, &pace).len(), 3, "12 of 10");
    // Forty times as slow as what would fill a pass.
    pace.learn(10, Duration::from_secs(2));
    assert_eq!(pass(&lane, &pace), ["panic"], "a pass would take too long");
    assert_eq!(pass(&lane, &pace), ["12"]);
    drop(waiting);
}

#[test]
fn one_input_of_another_client_is_in_the_next_pass() {
    let lane = lane(LIMITS);
    let mut pace = Pace::new(LIMITS.pass_cost);
    pace.learn(4, Duration::from_millis(1));
    let many = push(&lane, Client::at(1), &["1234"; 9]);
    let one = push(&lane, Client::at(2), &["one"]);
    assert_eq!(pass(&lane, &pace), ["1234", "one", "1234"]);
    drop((many, one));
}

#[test]
fn who_has_left_is_dropped() {
    let lane = lane(LIMITS);
    drop(push(&lane, Client::at(1), &["gone", "gone"]));
    let stays = push(&lane, Client::at(1), &["stays"]);
    assert_eq!(pass(&lane, &Pace::new(LIMITS.pass_cost)), ["stays"]);
    drop(stays);
}

#[test]
fn who_is_too_late_is_told() {
    let lane = lane(TowerLimits {
        deadlines: [Duration::ZERO; 2],
        ..LIMITS
    });
    let late = push(&lane, Client::at(1), &["late"]);
    let pace = Pace::new(LIMITS.pass_cost);
    assert!(pass(&lane, &pace).is_empty());
    assert!(lane.queue.next_now(lane.class).is_none());
    for answer in late {
        assert_eq!(answer.blocking_recv(), Ok(Err(Failed::Late)));
    }
}

#[test]
fn one_slow_pass_does_not_refuse_all_that_come_after() {
    let lane = lane(LIMITS);
    let mut pace = Pace::new(LIMITS.pass_cost);
    pace.learn(1, Duration::from_hours(1));
    let waiting = push(&lane, Client::at(1), &["a"]);
    assert_eq!(pass(&lane, &pace), ["a"]);
    drop(waiting);
}

#[test]
fn room_is_bounded_and_given_back() {
    let rooms = Rooms::new(LIMITS);
    let full = |client, class, n| matches!(rooms.take(client, class, n), Err(ApiError::QueueFull));
    let (many, other) = (Client::at(1), Client::at(2));
    // Of 16, 12 are for what is to be kept, and 9 of those for one client.
    assert!(full(many, Class::Keep, 10));
    let mut first = rooms.take(many, Class::Keep, 9).expect("there is room");
    assert!(full(many, Class::Keep, 1) && full(other, Class::Keep, 4));
    let second = rooms.take(other, Class::Keep, 3).expect("there is room");
    let queries = rooms.take(many, Class::Ask, 4).expect("there is room");
    assert!(full(other, Class::Ask, 1));
    assert_eq!(rooms.held(), 16);
    let one = first.one();
    drop((first, queries));
    assert_eq!(rooms.held(), 4);
    drop((one, second));
    assert_eq!(rooms.held(), 0);
}

#[test]
fn a_query_does_not_wait_for_an_ingest() {
    let (go_on, wait) = mpsc::channel();
    let picky = Picky {
        go_on: Mutex::new(Some(wait)),
        ..Picky::new()
    };
    let encoder: Arc<dyn Encoder<String>> = Arc::new(picky);
    let pools = Arc::new(Pools::start().expect("starts"));
    let metrics = TowerMetrics::unregistered();
    let tower = Tower::start(&encoder, LIMITS, &pools, &metrics).expect("starts");
    let client = Client::at(1);
    let encode = async |input: &str, class| {
        let room = tower.try_room(client, class, 1).expect("there is room");
        tower.encode(input.to_owned(), room).await
    };
    let query = async {
        let answer = encode("query", Class::Ask).await;
        assert_eq!(tower.waiting(), 2, "the ingest still waits");
        go_on.send(()).expect("the tower waits");
        answer
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().expect("starts");
    let all = futures_util::future::join3(
        encode("held", Class::Keep),
        encode("next", Class::Keep),
        query,
    );
    let (held, next, query) = runtime.block_on(all);
    assert!(held.is_ok() && next.is_ok() && query.is_ok());
    tower.close();
}
