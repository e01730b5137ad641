/**
 * Public data sets in the form they are published in, oddities included, as tiny folders; read by the table adapter.
 */
import { gzipSync } from "node:zlib";
import type { Layout } from "./layouts.ts";

const jsonLines = (...records: object[]): string => records.map((r) => `${JSON.stringify(r)}\n`).join("");
const hex = (c: string): string => c.repeat(64);

const yelpReview = (user_id: string, business_id: string, date: string) => ({
  ...{ review_id: `r-${user_id}-${business_id}`, user_id, business_id, stars: 4.0, useful: 0, funny: 0, cool: 0 },
  ...{ text: 'Great "place",\nreally {nice}', date },
});
const yelpBusiness = (business_id: string, name: string, categories: string | null) => ({
  ...{ business_id, name, address: "1616 Chapala St, Ste 2", city: "Santa Barbara", state: "CA", postal_code: "93101" },
  ...{ latitude: 34.42, longitude: -119.71, stars: 5.0, review_count: 7, is_open: 0 },
  ...{ attributes: { ByAppointmentOnly: "True", BusinessParking: "{'garage': False, 'street': True}" }, categories },
  hours: null,
});

const goodreads = (user_id: string, book_id: string, date_added: string, is_read: boolean) => ({
  ...{ user_id, book_id, review_id: `${user_id}${book_id}`, is_read, rating: is_read ? 5 : 0 },
  ...{ review_text_incomplete: "", date_added, date_updated: date_added, read_at: "", started_at: "" },
});
const book = (book_id: string, title: string) => ({
  ...{ isbn: "0312853122", text_reviews_count: "1", series: [], country_code: "US", language_code: "" },
  popular_shelves: [
    { count: "3", name: "poetry" },
    { count: "1", name: "to-read" },
  ],
  ...{ asin: "", is_ebook: "false", average_rating: "4.00", similar_books: [], description: `About ${title}.` },
  ...{
    authors: [{ author_id: "604031", role: "" }],
    publisher: "St. Martin's Press",
    num_pages: "256",
    book_id,
    title,
  },
});

const kuaiRandHeader =
  "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n";
const kuaiRand = (user: number, video: number, ms: number, click: 0 | 1): string =>
  `${user},${video},20220421,400,${ms},${click},0,0,0,0,0,${click},${click * 9000},8500,0,0,0,0,1\n`;

export const publicLayouts: readonly Layout[] = [
  {
    name: "H&M",
    files: {
      "transactions_train.csv": `t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-21,${hex("a")},0108775015,0.0508,2\n2018-09-20,${hex("a")},0663713001,0.0305,1\n2018-09-20,${hex("b")},0108775015,0.0508,2\n`,
      "articles.csv":
        'article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,colour_group_code,colour_group_name,index_group_name,detail_desc\n0108775015,0108775,Strap top,253,Vest top,Garment Upper body,09,Black,Ladieswear,"Jersey top with ""narrow"" straps, black."\n0663713001,0663713,Atlanta Push Body,283,Underwear body,Underwear,09,Black,Ladieswear,\n',
      "customers.csv": `customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code\n${hex("a")},,,ACTIVE,NONE,49.0,52043\n`,
      "sample_submission.csv": `customer_id,prediction\n${hex("a")},0706016001 0706016002\n`,
    },
    settings: {
      adapter: "table",
      files: { interactions: "transactions_train.csv", items: "articles.csv" },
      columns: {
        ...{ user: "customer_id", item: "article_id", time: "t_dat", id: "article_id", title: "prod_name" },
        categories: ["index_group_name", "product_group_name", "product_type_name", "colour_group_name"],
        description: "detail_desc",
      },
    },
    sequences: { [hex("a")]: ["0663713001", "0108775015"], [hex("b")]: ["0108775015"] },
    items: {
      "0108775015": {
        title: "Strap top",
        categories: ["Ladieswear", "Garment Upper body", "Vest top", "Black"],
        description: 'Jersey top with "narrow" straps, black.',
      },
    },
  },
  {
    name: "Yelp",
    files: {
      "yelp_academic_dataset_review.json": jsonLines(
        yelpReview("mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", "2018-07-07 22:09:11"),
        yelpReview("mh_-eMZ6K5RLWhZyISBhwA", "7ATYjTIgM3jUlt4UM3IypQ", "2012-01-03 15:28:18"),
        yelpReview("OyoGAe7OKpv6SyGZT5g77Q", "7ATYjTIgM3jUlt4UM3IypQ", "2014-02-05 20:30:30"),
      ),
      "yelp_academic_dataset_business.json": jsonLines(
        yelpBusiness("XQfwVwDr-v0ZS3_CbbE5Xw", "Turning Point &amp; Co", "Restaurants, Breakfast & Brunch, Food"),
        yelpBusiness("7ATYjTIgM3jUlt4UM3IypQ", "Body Cycle", null),
      ),
      "yelp_academic_dataset_tip.json": jsonLines({ user_id: "x", business_id: "y", text: "t", date: "2012-05-18" }),
      "yelp_academic_dataset_user.json": jsonLines({ user_id: "x", name: "W", yelping_since: "2007-01-25 16:47:26" }),
      "yelp_academic_dataset_checkin.json": jsonLines({ business_id: "y", date: "2020-03-13 21:10:56" }),
    },
    settings: {
      adapter: "table",
      files: { interactions: "yelp_academic_dataset_review.json", items: "yelp_academic_dataset_business.json" },
      columns: {
        ...{ user: "user_id", item: "business_id", time: "date", rating: "stars" },
        ...{ id: "business_id", title: "name", categories: "categories", description: ["city", "state"] },
      },
      categorySeparator: ",",
    },
    sequences: {
      "mh_-eMZ6K5RLWhZyISBhwA": ["7ATYjTIgM3jUlt4UM3IypQ", "XQfwVwDr-v0ZS3_CbbE5Xw"],
      OyoGAe7OKpv6SyGZT5g77Q: ["7ATYjTIgM3jUlt4UM3IypQ"],
    },
    items: {
      "XQfwVwDr-v0ZS3_CbbE5Xw": {
        title: "Turning Point & Co",
        categories: ["Restaurants", "Breakfast & Brunch", "Food"],
        description: "Santa Barbara CA",
      },
      "7ATYjTIgM3jUlt4UM3IypQ": { categories: [] },
    },
  },
  {
    name: "Steam reviews, Python literals",
    files: {
      "steam_reviews.json.gz": gzipSync(
        [
          `{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, u'date': u'2017-12-17', u'text': u"This wouldn't be \\u2605 fair", u'early_access': False, u'page': 1}`,
          `{u'username': u'\\u2611 O\\'Neil', u'product_id': u'725280', u'date': u'2017-12-01', u'text': u'x\\n', u'early_access': True, u'page': 1}`,
          `{u'username': u'Chaos Syren', u'hours': 2, u'product_id': u'328100', u'date': u'2016-01-02', u'text': u'', u'early_access': False, u'page': 2}`,
        ].join("\n"),
      ),
      "steam_games.json.gz": gzipSync(
        [
          `{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Casual'], u'app_name': u'Lost Summoner Kitty', u'title': u'Lost Summoner Kitty', u'url': u'http://store.example/app/725280/', u'tags': [u'Strategy', u'Action'], u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u'Kotoshiro'}`,
          `{u'app_name': u'\\u5f39\\u70b8\\u4eba2222', u'url': u'http://store.example/app/328100/', u'tags': [u'Indie'], u'id': u'328100'}`,
        ].join("\n"),
      ),
    },
    settings: {
      adapter: "table",
      files: { interactions: "steam_reviews.json.gz", items: "steam_games.json.gz" },
      columns: {
        ...{ user: "username", item: "product_id", time: "date" },
        ...{ id: "id", title: "app_name", brand: "developer", categories: ["genres", "tags"] },
      },
    },
    sequences: { "Chaos Syren": ["328100", "725280"], "☑ O'Neil": ["725280"] },
    items: {
      725280: { title: "Lost Summoner Kitty", brand: "Kotoshiro", categories: ["Action", "Casual", "Strategy"] },
      328100: { title: "弹炸人2222", categories: ["Indie"] },
    },
  },
  {
    name: "Goodreads, JSON",
    files: {
      "goodreads_interactions_poetry.json.gz": gzipSync(
        jsonLines(
          goodreads("8842281e", "402128", "Fri Sep 08 10:44:24 -0700 2017", true),
          goodreads("8842281e", "7048", "Sun Apr 03 00:16:26 -0700 2016", true),
          goodreads("72fb0d00", "7048", "Mon Jan 02 09:00:00 -0800 2012", true),
          goodreads("72fb0d00", "402128", "Mon Jan 02 09:00:01 -0800 2012", false),
        ),
      ),
      "goodreads_books_poetry.json.gz": gzipSync(jsonLines(book("402128", "Possum"), book("7048", "The Sonnets"))),
    },
    settings: {
      adapter: "table",
      files: { interactions: "goodreads_interactions_poetry.json.gz", items: "goodreads_books_poetry.json.gz" },
      columns: {
        ...{ user: "user_id", item: "book_id", time: "date_added", rating: "rating" },
        ...{ id: "book_id", title: "title", categories: "popular_shelves", description: "description" },
      },
      keep: { is_read: [true] },
    },
    sequences: { "8842281e": ["7048", "402128"], "72fb0d00": ["7048"] },
    items: { 402128: { title: "Possum", description: "About Possum." } },
  },
  {
    name: "Goodreads, CSV with id maps",
    files: {
      "goodreads_interactions.csv":
        "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n0,947,1,0,1\n1,948,0,0,0\n2,947,1,4,0\n",
      "book_id_map.csv": "book_id_csv,book_id\n947,402128\n948,7048\n",
      "user_id_map.csv": "user_id_csv,user_id\n0,8842281e\n1,72fb0d00\n2,ab2923b7\n",
      "goodreads_books.json.gz": gzipSync(jsonLines(book("402128", "Possum"), book("7048", "The Sonnets"))),
    },
    settings: {
      adapter: "table",
      files: {
        ...{ interactions: "goodreads_interactions.csv", itemIds: "book_id_map.csv" },
        items: "goodreads_books.json.gz",
      },
      columns: {
        ...{ user: "user_id", item: "book_id", rating: "rating" },
        ...{ id: "book_id", title: "title", categories: "popular_shelves", description: "description" },
      },
      keep: { is_read: [1] },
    },
    sequences: { 0: ["7048", "402128"], 2: ["402128"] },
    items: { 7048: { title: "The Sonnets" } },
  },
  {
    name: "KuaiRec",
    files: {
      "big_matrix.csv":
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273397\n0,9598,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,1.244082\n0,1,10,10984,2020-07-05 00:13:42.1,20200705,1593879222.1,0.0009\n1,9598,13665,10984,2020-07-06 00:13:41.297,20200706,1593965621.297,2.5\n",
      "small_matrix.csv":
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n14,148,4381,6067,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.722103\n",
      "kuairec_caption_category.csv":
        'video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n3649,UNKNOWN,精神小伙路难走 程哥你狗粮慢点撒,[],8,颜值,673,颜值随拍,-124,UNKNOWN\n9598,五爱街最美美女 一天1q,"#感谢快手我要上热门 #五爱市场\n第二行","[五爱市场,感谢快手]",27,高新数码,-124,UNKNOWN,-124,UNKNOWN\n1,,,[],9,喜剧,727,搞笑互动,-124,UNKNOWN\n',
      "item_categories.csv": 'video_id,feat\n3649,[8]\n9598,"[27, 9]"\n1,[9]\n',
      "user_features.csv": "user_id,user_active_degree\n0,high_active\n",
    },
    settings: {
      adapter: "table",
      files: { interactions: "big_matrix.csv", items: "kuairec_caption_category.csv" },
      columns: {
        ...{ user: "user_id", item: "video_id", time: "timestamp", rating: "watch_ratio" },
        ...{ id: "video_id", title: "caption", description: ["manual_cover_text", "topic_tag"] },
        categories: ["first_level_category_name", "second_level_category_name", "third_level_category_name"],
      },
      minRating: 1,
    },
    dropped: { "below minimum rating": 1 },
    sequences: { 0: ["3649", "9598"], 1: ["9598"] },
    items: { 9598: { title: "#感谢快手我要上热门 #五爱市场 第二行" } },
  },
  {
    name: "KuaiRand",
    files: {
      "log_standard_4_08_to_4_21_pure.csv": `${kuaiRandHeader}${kuaiRand(0, 11, 1650485801301, 1)}${kuaiRand(0, 12, 1650485701301, 1)}${kuaiRand(0, 13, 1650485701300, 0)}${kuaiRand(1, 13, 1650485901301, 1)}`,
      "user_features_pure.csv": "user_id,user_active_degree,is_lowactive_period\n0,full_active,0\n",
      "video_features_basic_pure.csv":
        'video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,music_type,tag\n11,7,NORMAL,2022-04-08,ShortImport,public,8500.0,720,1280,33,9.0,"12,65"\n12,7,NORMAL,2022-04-08,ShortImport,public,,720,1280,33,9.0,39\n13,8,AD,2022-04-08,ShortImport,public,,720,1280,33,9.0,\n',
    },
    settings: {
      adapter: "table",
      files: { interactions: "log_standard_4_08_to_4_21_pure.csv", items: "video_features_basic_pure.csv" },
      columns: { user: "user_id", item: "video_id", time: "time_ms", id: "video_id", categories: "tag" },
      keep: { is_click: [1] },
      categorySeparator: ",",
    },
    sequences: { 0: ["12", "11"], 1: ["13"] },
    items: { 11: { categories: ["12", "65"] }, 13: { categories: [] } },
  },
  {
    name: "RecBole sessions",
    files: {
      "diginetica.inter":
        "session_id:token\titem_id:token\ttimestamp:float\tnumber of times:float\n1\t81766\t1462752000\t1\n1\t31331\t1462752001\t1\n2\t81766\t1462752400\t2\n",
      "diginetica.item":
        "item_id:token\titem_priceLog2:float\titem_name:token_seq\titem_category:token\n81766\t10\tsome words\t1096\n31331\t8\t\t52\n",
    },
    settings: { adapter: "recbole", columns: { user: "session_id" } },
    sequences: { 1: ["81766", "31331"], 2: ["81766"] },
    items: { 81766: { title: "some words", categories: ["1096"] } },
  },
  {
    name: "RecBole, LFM-1b artists",
    files: {
      "lfm1b-artists.inter":
        "user_id:token\tartist_id:token\ttimestamp:float\tlabel:float\n7\t137\t1385212958\t1\n7\t46\t1385212642\t1\n9\t46\t1385212999\t1\n",
      "lfm1b-artists.item": "artist_id:token\tname:token_seq\n137\tElliott Smith\n46\tLinkin Park\n",
    },
    settings: { adapter: "recbole", columns: { item: "artist_id" } },
    sequences: { 7: ["46", "137"], 9: ["46"] },
    items: { 46: { title: "Linkin Park" } },
  },
  {
    name: "RecBole benchmark files",
    files: {
      "ml.train.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\n1\ta b\tc\n2\tb\ta\n",
      "ml.valid.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\n1\ta b c\td\n",
      "ml.test.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\n1\tb c d\te\n",
      "ml.item": "item_id:token\tmovie_title:token_seq\na\tAlpha\nb\tBeta\nc\tGamma\nd\tDelta\ne\t\n",
    },
    settings: { adapter: "next-item" },
    sequences: { 1: ["a", "b", "c", "d", "e"], 2: ["b", "a"] },
    items: { c: { title: "Gamma" } },
  },
  {
    name: "MiniOneRec",
    files: {
      "train/Office_Products_5_2016-10-2018-11.csv": `user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\nA22,"['Gorilla ""Glue"", 2 oz']",Grizzly G9849,"[117]",118,"['<a_165><b_107><c_44>']",<a_104><b_118><c_176>\nA22,"['Gorilla ""Glue"", 2 oz', 'Grizzly G9849']",Pen,"[117, 118]",119,"['<a_165><b_107><c_44>', '<a_104><b_118><c_176>']",<a_1><b_2><c_3>\nA7,['Pen'],Grizzly G9849,[119],118,['<a_1><b_2><c_3>'],<a_104><b_118><c_176>\n`,
      "valid/Office_Products_5_2016-10-2018-11.csv": `user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\nA22,"['Grizzly G9849', 'Pen']",Ink,"[118, 119]",120,"['x', 'y']",<a_9><b_9><c_9>\n`,
      "test/Office_Products_5_2016-10-2018-11.csv": `user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\nA7,"['Pen', 'Grizzly G9849']",Ink,"[119, 118]",120,"['x', 'y']",<a_9><b_9><c_9>\n`,
      "info/Office_Products_5_2016-10-2018-11.txt": "<a_104><b_118><c_176>\tGrizzly G9849\t118\n",
      "index/Office_Products.index.json": '{"117": ["<a_165>", "<b_107>", "<c_44>"]}',
      "index/Office_Products.item.json": JSON.stringify({
        117: { title: 'Gorilla "Glue", 2 oz', description: "Sticks.", brand: "Gorilla" },
        118: { title: "Grizzly G9849", description: "", brand: "Grizzly" },
        119: { title: "Pen", description: "Writes." },
        120: { title: "Ink" },
      }),
    },
    settings: { adapter: "next-item" },
    sequences: { A22: ["117", "118", "119", "120"], A7: ["119", "118", "120"] },
    items: { 117: { title: 'Gorilla "Glue", 2 oz', brand: "Gorilla", description: "Sticks." } },
  },
  {
    name: "Retailrocket",
    files: {
      "events.csv":
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433224214164,992329,view,248676,\n1433221999827,257597,addtocart,248676,\n1433222276276,257597,transaction,318965,4000\n",
      "item_properties_part1.csv":
        "timestamp,itemid,property,value\n1435460400000,355908,categoryid,1338\n1441508400000,355908,888,1116713 960601 n277.200\n1431226800000,355908,categoryid,7\n",
      "item_properties_part2.csv":
        "timestamp,itemid,property,value\n1433041200000,248676,categoryid,1016\n1439694000000,248676,790,n26.400 1135780\n1439694000000,248676,available,1\n",
      "category_tree.csv": "categoryid,parentid\n1338,1016\n1016,213\n213,\n",
    },
    settings: { adapter: "retailrocket" },
    sequences: { 257597: ["355908", "248676", "318965"], 992329: ["248676"] },
    items: {
      355908: { categories: ["category 213", "category 1016", "category 1338"], description: "1116713 960601" },
      248676: { categories: ["category 213", "category 1016"], description: "" },
      318965: { categories: [] },
    },
  },
];
