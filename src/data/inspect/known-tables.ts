/**
 * Public data sets that consist of two tables: each is an entry here, read by the table adapter. Data sets that need
 * more than column names have their own adapter. Sources: the data sets' own pages and loaders.
 */

export interface KnownTable {
  readonly layout: string;
  /** The interactions: possible file names, required columns, and preferred names. */
  readonly interactions: { readonly files: RegExp; readonly has: readonly string[]; readonly rather?: RegExp };
  /** Item files, best first; the first one present is proposed. `columns` apply to this file only. */
  readonly items: readonly {
    readonly files: RegExp;
    readonly columns: Readonly<Record<string, string | readonly string[]>>;
    readonly settings?: Readonly<Record<string, unknown>>;
  }[];
  /** The file that translates item ids (data.files.itemIds), and the note if it is missing. */
  readonly itemIds?: RegExp;
  readonly withoutIds?: string;
  /** user, item, time, rating. */
  readonly columns: Readonly<Record<string, string>>;
  /** More settings under `data`. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Notes for the user to know or decide. */
  readonly notes?: readonly string[];
}

export const knownTables: readonly KnownTable[] = [
  {
    layout: "H&M transactions and articles",
    interactions: { files: /^transactions(_train)?\.(csv|parquet)/, has: ["t_dat", "customer_id", "article_id"] },
    items: [
      {
        files: /^articles\.(csv|parquet)/,
        columns: {
          ...{ id: "article_id", title: "prod_name", description: "detail_desc" },
          categories: ["index_group_name", "product_group_name", "product_type_name", "colour_group_name"],
        },
      },
    ],
    columns: { user: "customer_id", item: "article_id", time: "t_dat" },
    notes: ["times are days: purchases of one customer on the same day have no order"],
  },
  {
    layout: "Yelp's open data set",
    interactions: { files: /review\.json/, has: ["review_id", "user_id", "business_id", "stars", "date"] },
    items: [
      {
        files: /business\.json/,
        columns: { id: "business_id", title: "name", categories: "categories", description: ["city", "state"] },
        settings: { categorySeparator: "," },
      },
    ],
    columns: { user: "user_id", item: "business_id", time: "date", rating: "stars" },
  },
  {
    layout: "Steam reviews and games (UCSD)",
    interactions: { files: /^steam_reviews\.json/, has: ["username", "product_id", "date"] },
    items: [
      {
        files: /^steam_games\.json/,
        columns: { id: "id", title: "app_name", brand: "developer", categories: ["genres", "tags"] },
      },
    ],
    columns: { user: "username", item: "product_id", time: "date" },
    notes: ["times are days: reviews of one user on the same day have no order"],
  },
  {
    layout: "Goodreads interactions (UCSD Book Graph)",
    interactions: { files: /interactions.*\.json/, has: ["user_id", "book_id", "is_read", "date_added"] },
    items: [
      {
        files: /^goodreads_books.*\.json/,
        columns: { id: "book_id", title: "title", categories: "popular_shelves", description: "description" },
      },
    ],
    columns: { user: "user_id", item: "book_id", time: "date_added", rating: "rating" },
    notes: ["a rating of 0 means no rating"],
  },
  {
    layout: "Goodreads interactions as CSV (UCSD Book Graph)",
    interactions: { files: /^goodreads_interactions.*\.csv/, has: ["user_id", "book_id", "is_read", "rating"] },
    items: [
      {
        files: /^goodreads_books.*\.json/,
        columns: { id: "book_id", title: "title", categories: "popular_shelves", description: "description" },
      },
    ],
    itemIds: /^book_id_map\.csv/,
    withoutIds: "without book_id_map.csv, the ids in the CSV do not match those of the books",
    columns: { user: "user_id", item: "book_id", rating: "rating" },
    notes: [
      "the CSV has no times and its rows would be taken to be in time order; " +
        "goodreads_interactions_dedup.json.gz has times",
      "a rating of 0 means no rating",
    ],
  },
  {
    layout: "KuaiRec",
    interactions: { files: /^(big|small)_matrix\.csv/, has: ["user_id", "video_id", "watch_ratio", "timestamp"] },
    items: [
      {
        files: /^kuairec_caption_category\.csv/,
        columns: {
          ...{ id: "video_id", title: "caption", description: ["manual_cover_text", "topic_tag"] },
          categories: ["first_level_category_name", "second_level_category_name", "third_level_category_name"],
        },
      },
      { files: /^item_categories\.csv/, columns: { id: "video_id", categories: "feat" } },
    ],
    columns: { user: "user_id", item: "video_id", time: "timestamp", rating: "watch_ratio" },
    settings: { minRating: 1 },
    notes: ["every video shown is a row; data.minRating: 1 keeps videos watched to the end (watch_ratio; 2 = twice)"],
  },
  {
    layout: "KuaiRand",
    interactions: {
      files: /^log_(standard|random).*\.csv/,
      has: ["user_id", "video_id", "time_ms", "is_click"],
      rather: /^log_standard/,
    },
    items: [
      {
        files: /^kuairand_video_captions\.csv/,
        columns: { id: "final_video_id", title: "caption" },
      },
      {
        files: /^video_features_basic.*\.csv/,
        columns: { id: "video_id", title: "caption", categories: "tag" },
        settings: { categorySeparator: "," },
      },
    ],
    columns: { user: "user_id", item: "video_id", time: "time_ms" },
  },
];
