//! FOCUS's columns as a table: a new version of the specification is a new list, not new code.
//!
//! Source: FinOps Open Cost and Usage Specification 1.2. Columns that have nothing to say here (commitments, capacity
//! reservations, prices in a second currency) are conditional there and left out, or always empty.

use crate::{
    cell::{Cell, Kind},
    focus::Charge,
};

/// A column: its name, what its values are, and how a charge fills it.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) value: fn(&Charge<'_>) -> Cell,
}

const fn column(name: &'static str, kind: Kind, value: fn(&Charge<'_>) -> Cell) -> Column {
    Column { name, kind, value }
}

/// FOCUS 1.2, then our own (`x_`).
pub(crate) const FOCUS_1_2: &[Column] = &[
    column("AvailabilityZone", Kind::Text, |charge| charge.availability_zone()),
    column("BilledCost", Kind::Decimal, |charge| charge.cost()),
    column("BillingAccountId", Kind::Text, |charge| charge.account_id()),
    column("BillingAccountName", Kind::Text, |charge| charge.account_name()),
    column("BillingAccountType", Kind::Text, |charge| charge.account_type()),
    column("BillingCurrency", Kind::Text, |charge| charge.currency()),
    column("BillingPeriodEnd", Kind::Time, |charge| charge.billing_end()),
    column("BillingPeriodStart", Kind::Time, |charge| charge.billing_begin()),
    column("ChargeCategory", Kind::Text, |charge| charge.category()),
    column("ChargeClass", Kind::Text, |charge| charge.class()),
    column("ChargeDescription", Kind::Text, |charge| charge.description()),
    column("ChargeFrequency", Kind::Text, |charge| charge.frequency()),
    column("ChargePeriodEnd", Kind::Time, |charge| charge.end()),
    column("ChargePeriodStart", Kind::Time, |charge| charge.begin()),
    column("ConsumedQuantity", Kind::Decimal, |charge| charge.consumed_quantity()),
    column("ConsumedUnit", Kind::Text, |charge| charge.consumed_unit()),
    column("ContractedCost", Kind::Decimal, |charge| charge.cost()),
    column("ContractedUnitPrice", Kind::Decimal, |charge| charge.contracted_unit_price()),
    column("EffectiveCost", Kind::Decimal, |charge| charge.effective_cost()),
    column("InvoiceId", Kind::Text, |charge| charge.invoice()),
    column("InvoiceIssuerName", Kind::Text, |charge| charge.issuer()),
    column("ListCost", Kind::Decimal, |charge| charge.list_cost()),
    column("ListUnitPrice", Kind::Decimal, |charge| charge.list_unit_price()),
    column("PricingCategory", Kind::Text, |charge| charge.pricing_category()),
    column("PricingCurrency", Kind::Text, |charge| charge.pricing_currency()),
    column("PricingCurrencyContractedUnitPrice", Kind::Decimal, |charge| charge.contracted_unit_price()),
    column("PricingCurrencyEffectiveCost", Kind::Decimal, |charge| charge.effective_cost()),
    column("PricingCurrencyListUnitPrice", Kind::Decimal, |charge| charge.list_unit_price()),
    column("PricingQuantity", Kind::Decimal, |charge| charge.pricing_quantity()),
    column("PricingUnit", Kind::Text, |charge| charge.pricing_unit()),
    column("ProviderName", Kind::Text, |charge| charge.provider()),
    column("PublisherName", Kind::Text, |charge| charge.publisher()),
    column("RegionId", Kind::Text, |charge| charge.region_id()),
    column("RegionName", Kind::Text, |charge| charge.region_name()),
    column("ResourceId", Kind::Text, |charge| charge.resource_id()),
    column("ResourceName", Kind::Text, |charge| charge.resource_name()),
    column("ResourceType", Kind::Text, |charge| charge.resource_type()),
    column("ServiceCategory", Kind::Text, |charge| charge.service_category()),
    column("ServiceName", Kind::Text, |charge| charge.service_name()),
    column("ServiceSubcategory", Kind::Text, |charge| charge.service_subcategory()),
    column("SkuId", Kind::Text, |charge| charge.sku()),
    column("SkuMeter", Kind::Text, |charge| charge.sku_meter()),
    column("SkuPriceDetails", Kind::Text, |charge| charge.sku_price_details()),
    column("SkuPriceId", Kind::Text, |charge| charge.sku_price()),
    column("SubAccountId", Kind::Text, |charge| charge.project()),
    column("SubAccountName", Kind::Text, |charge| charge.project_name()),
    column("SubAccountType", Kind::Text, |charge| charge.project_type()),
    column("Tags", Kind::Text, |charge| charge.tags()),
    column("x_CorrectsLineId", Kind::Text, |charge| charge.corrects()),
    column("x_ExportRunId", Kind::Text, |charge| charge.run()),
    column("x_LineId", Kind::Text, |charge| charge.line_id()),
    column("x_RatingRuleId", Kind::Text, |charge| charge.rule()),
    column("x_RatingRuleVersion", Kind::Integer, |charge| charge.rule_version()),
    column("x_SampleCount", Kind::Integer, |charge| charge.samples()),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_there_once_and_every_mandatory_one_is() {
        let names: BTreeSet<_> = FOCUS_1_2.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), FOCUS_1_2.len());
        for name in [
            "BilledCost",
            "BillingAccountId",
            "BillingAccountName",
            "BillingCurrency",
            "BillingPeriodEnd",
            "BillingPeriodStart",
            "ChargeCategory",
            "ChargeClass",
            "ChargeDescription",
            "ChargePeriodEnd",
            "ChargePeriodStart",
            "ContractedCost",
            "EffectiveCost",
            "InvoiceIssuerName",
            "ListCost",
            "PricingQuantity",
            "PricingUnit",
            "ProviderName",
            "PublisherName",
            "ServiceCategory",
            "ServiceName",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }
}
