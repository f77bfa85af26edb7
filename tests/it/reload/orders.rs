//! Orders
