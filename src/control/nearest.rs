//! Which names are nearest to one that does not exist. Pure.

use std::collections::BTreeSet;

/// Most names that are suggested.
pub const MAX_NEAREST: usize = 3;

/// Names beyond which no distances are worked out: each costs the product of two lengths.
const MAX_NAMES: usize = 10_000;

/// The nearest names, nearest first. A name without its supervisor's name before it is near the full one.
pub(super) fn to(wanted: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let names: BTreeSet<String> = names.into_iter().take(MAX_NAMES).collect();
    let mut by_distance: Vec<(usize, String)> = names.into_iter().map(|name| (distance(wanted, &name), name)).collect();
    by_distance.sort();
    by_distance.into_iter().take(MAX_NEAREST).map(|(_, name)| name).collect()
}

fn distance(wanted: &str, name: &str) -> usize {
    let last = name.rsplit('/').next().unwrap_or(name);
    let (wanted, name, last) = (wanted.to_lowercase(), name.to_lowercase(), last.to_lowercase());
    strsim::damerau_levenshtein(&wanted, &name).min(strsim::damerau_levenshtein(&wanted, &last))
}

/// What an error says of them.
pub(super) fn said(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; the nearest names are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["payments", "payments/api", "payments/store", "web/nginx"].map(str::to_owned);
        assert_eq!(to("paymnts/api", names.clone())[0], "payments/api");
        assert_eq!(to("ngnix", names.clone())[0], "web/nginx");
        assert_eq!(to("API", names.clone())[0], "payments/api");
        assert_eq!(to("x", names).len(), MAX_NEAREST);
        assert_eq!(said(&to("x", [])), "");
    }
}
