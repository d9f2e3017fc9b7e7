use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tasker_sdk::{StepContext, StepError};

use super::decimal::{overflow, parse_number};
use crate::csv_file::CsvFile;

/// Figures of some rows, exact.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) rows: u64,
    pub(super) inventory_value: Decimal,
    pub(super) category_counts: BTreeMap<String, u64>,
    pub(super) max_price: Option<Decimal>,
    pub(super) max_price_product: Option<String>,
    /// The sum of all ratings.
    pub(super) ratings: Decimal,
}

/// Where the columns stand that the figures need.
pub(super) struct Columns {
    title: usize,
    category: usize,
    price: usize,
    rating: usize,
    stock: usize,
}

impl Columns {
    pub(super) fn of(file: &CsvFile) -> Result<Self, StepError> {
        Ok(Self {
            title: file.column("title")?,
            category: file.column("category")?,
            price: file.column("price")?,
            rating: file.column("rating")?,
            stock: file.column("stock")?,
        })
    }
}

impl Figures {
    /// Reads the rows `[start, end)` of a file.
    pub(super) fn read(
        ctx: &StepContext,
        path: &str,
        start: u64,
        end: u64,
    ) -> Result<Self, StepError> {
        let mut file = CsvFile::open(ctx, path)?;
        let columns = Columns::of(&file)?;
        let mut figures = Self::default();
        while file.next_row() < end {
            let row = file.next_row();
            if file.read_row()?.is_none() {
                return Err(file.changed());
            }
            if row >= start {
                figures.add(&file, &columns)?;
            }
        }
        Ok(figures)
    }

    fn add(&mut self, file: &CsvFile, columns: &Columns) -> Result<(), StepError> {
        let number = |column| {
            parse_number(file.text(column)?)
                .ok_or_else(|| file.bad_value(column, "is not a number"))
        };
        let (price, stock) = (number(columns.price)?, number(columns.stock)?);
        let value = price.checked_mul(stock).ok_or_else(overflow)?;
        self.inventory_value = self.inventory_value.checked_add(value).ok_or_else(overflow)?;
        self.ratings = self.ratings.checked_add(number(columns.rating)?).ok_or_else(overflow)?;
        self.rows += 1;
        *self.category_counts.entry(file.text(columns.category)?.to_owned()).or_default() += 1;
        self.offer_price(price, || file.text(columns.title).map(str::to_owned))
    }

    /// Adds the figures of later rows.
    pub(super) fn merge(&mut self, later: Self) -> Result<(), StepError> {
        let sum = |a: Decimal, b: Decimal| a.checked_add(b).ok_or_else(overflow);
        self.rows += later.rows;
        self.inventory_value = sum(self.inventory_value, later.inventory_value)?;
        self.ratings = sum(self.ratings, later.ratings)?;
        for (category, count) in later.category_counts {
            *self.category_counts.entry(category).or_default() += count;
        }
        match (later.max_price, later.max_price_product) {
            (Some(price), Some(product)) => self.offer_price(price, || Ok(product)),
            _ => Ok(()),
        }
    }

    /// Of rows with the same price the first one stays.
    fn offer_price(
        &mut self,
        price: Decimal,
        product: impl FnOnce() -> Result<String, StepError>,
    ) -> Result<(), StepError> {
        if self.max_price.is_none_or(|max| price > max) {
            self.max_price = Some(price);
            self.max_price_product = Some(product()?);
        }
        Ok(())
    }
}
