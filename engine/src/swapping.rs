//! Two collections take each other's name.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use fs_err as fs;

use crate::{
    Collection, Engine, EngineError,
    catalog::{self, Description},
    loading,
    store::Batch,
    versions::Versions,
};

/// What a folder is called while its name is taken.
const ASIDE: &str = ".swapping";

impl Engine {
    /// Has two collections take each other's name; durable on return, and at every moment either both have
    /// or none. `last` is called when the first one takes no more writes, and says whether to go on. Its
    /// items, fields and heads go with a collection. Whoever still holds one as it was reads on, and gets
    /// [`EngineError::Deleted`] for writes. Gives whether they were swapped.
    ///
    /// # Errors
    /// When one of them is not there ([`EngineError::Deleted`]), when `last` fails, or when the store fails.
    pub fn swap(
        &self,
        first: &str,
        second: &str,
        last: impl FnOnce(&Arc<Collection>, &Arc<Collection>) -> Result<bool, EngineError>,
    ) -> Result<bool, EngineError> {
        let names = [first.to_owned(), second.to_owned()];
        let _turn = self
            .names
            .take(&names)
            .expect("names are open as long as the engine is");
        let find = |name: &String| {
            let gone = || EngineError::Deleted {
                collection: name.clone(),
            };
            self.collection(name).ok_or_else(gone)
        };
        let (a, b) = (find(&names[0])?, find(&names[1])?);
        a.close_writes();
        let swapped = last(&a, &b).and_then(|go_on| {
            if go_on {
                b.close();
                a.close();
                self.rename([&a, &b])?;
            }
            Ok(go_on)
        });
        if !matches!(swapped, Ok(true)) {
            a.reopen();
            b.reopen();
        }
        swapped
    }

    fn rename(&self, [a, b]: [&Arc<Collection>; 2]) -> Result<(), EngineError> {
        let store = self.core.store.as_ref();
        let listed = catalog::list(store)?;
        let description = |of: &Arc<Collection>| -> Result<Description, EngineError> {
            let found = listed.iter().find(|(name, _)| *name == of.name);
            found
                .map(|(_, description)| description.clone())
                .ok_or_else(|| of.gone())
        };
        let (of_a, of_b) = (description(a)?, description(b)?);
        let mut batch = Batch::default();
        catalog::describe(&mut batch, &a.name, &of_b);
        catalog::describe(&mut batch, &b.name, &of_a);
        store.commit(batch)?;
        // From here on they have each other's name. What is left of indexes under the wrong one is not
        // believed, and built again.
        if let (Some(dir_a), Some(dir_b)) = (a.index_dir(), b.index_dir()) {
            let aside = dir_a.with_extension(ASIDE.trim_start_matches('.'));
            let moves = [(&dir_a, &aside), (&dir_b, &dir_a), (&aside, &dir_b)];
            for (from, to) in moves.into_iter().filter(|(from, _)| from.exists()) {
                if let Err(error) = fs::rename(from, to) {
                    tracing::warn!("an index is built again: {error}");
                }
            }
        }
        let load = |name: &str, description: Description| {
            let versions = Versions::open(store, description.number)?;
            loading::load(name.to_owned(), description, versions, &self.core)
        };
        let (new_a, new_b) = (load(&a.name, of_b)?, load(&b.name, of_a)?);
        let mut collections = self.collections.write();
        collections.insert(a.name.clone(), new_a);
        collections.insert(b.name.clone(), new_b);
        Ok(())
    }
}

impl Collection {
    fn close_writes(&self) {
        self.writes.close();
        self.declaring.close();
    }

    fn close(&self) {
        self.close_writes();
        self.stopping.store(true, SeqCst);
        self.seals.close();
    }

    fn reopen(&self) {
        self.stopping.store(false, SeqCst);
        self.seals.open();
        self.declaring.open();
        self.writes.open();
    }
}
