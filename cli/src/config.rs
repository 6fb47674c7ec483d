//! `diptych config`: what is set, and whether it fits together.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use crate::{
    args::{ConfigCommand, Places},
    home::Home,
    named, output, serve,
    settings::{self, Settings, layers::Layers},
};

/// Checks or shows the settings.
///
/// # Errors
/// When they cannot be read, or do not fit together.
pub fn run(places: &Places, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check(args) => {
            let file = args.file.as_deref().or(places.config.as_deref());
            let layers = settings::read(file)?;
            check(places, &layers)?;
            for name in &layers.ignored {
                output::note(&format!("{name} is no setting, and ignored"));
            }
            let what = file.map_or("the settings".into(), |file| file.display().to_string());
            Ok(output::line(&format!("{what}: all is well"))?)
        }
        ConfigCommand::Show => {
            let layers = settings::read(places.config.as_deref())?;
            Ok(output::line(show(&layers).trim_end())?)
        }
    }
}

/// Everything that can be checked without starting anything.
fn check(places: &Places, layers: &Layers) -> Result<()> {
    let settings: Settings = layers.settle()?;
    let mistakes = mistakes(places, &settings);
    let told: Vec<_> = mistakes.iter().map(|e| output::chain(e.as_ref())).collect();
    match told.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        many => bail!("{} mistakes:\n{}", many.len(), many.join("\n")),
    }
}

/// All that is wrong with settings whose values are of the right kinds.
fn mistakes(places: &Places, settings: &Settings) -> Vec<anyhow::Error> {
    let mut places = places.clone();
    let mut all = Vec::new();
    match places.settle(settings) {
        Ok(()) => {
            let built = places.run_options().place.check_built();
            all.extend(built.context("device").err());
        }
        // The flags may go before what is wrong with either.
        Err(error) => {
            let both = [settings.precision().err(), settings.device().err()];
            let before = all.len();
            all.extend(both.into_iter().flatten());
            if all.len() == before {
                all.push(error);
            }
        }
    }
    all.extend(named::check(&places).err());
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log.filter);
    all.extend(filter.context("log.filter").err());
    all.extend(settings.engine().err());
    all.extend(settings.telemetry.validate().err());
    match Home::new(&places).and_then(|home| serve::config(&home, settings)) {
        Ok(config) => all.extend(config.mistakes().into_iter().map(anyhow::Error::new)),
        Err(error) => all.push(error),
    }
    all
}

/// All of it as a file of settings, and where each comes from.
fn show(layers: &Layers) -> String {
    let mut all = layers.all();
    // TOML has what is in no section first.
    all.sort_by_key(|(key, ..)| key.contains('.'));
    let (mut text, mut section) = (String::new(), String::new());
    for (key, value, origin) in all {
        let (within, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if within != section {
            within.clone_into(&mut section);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n[{section}]");
        }
        let _ = writeln!(text, "{name} = {value}  # {origin}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let mut layers = Layers::new(&Settings::default()).expect("a table");
        layers
            .file(
                Path::new("a.toml"),
                "hosts = ['a.example']\n[limits]\nk = 7",
            )
            .expect("is read");
        let shown = show(&layers);
        assert!(shown.contains("k = 7  # a.toml"), "{shown}");
        assert!(shown.contains("items = 1000  # default"), "{shown}");
        let mut again = Layers::new(&Settings::default()).expect("a table");
        again.file(Path::new("b.toml"), &shown).expect("is TOML");
        let read = |layers: &Layers| layers.settle::<Settings>().expect("fits");
        assert_eq!(read(&again), read(&layers));
    }
}
